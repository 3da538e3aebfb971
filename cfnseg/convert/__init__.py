"""From an annotation tool's export to the folder data set that cfnseg trains on."""
