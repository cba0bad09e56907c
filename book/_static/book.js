// The theme's arrows that unfold a part of the contents have no name for those who cannot see them.
document.querySelectorAll(".bd-sidebar summary").forEach((arrow) => { arrow.ariaLabel = "Subpages"; });
