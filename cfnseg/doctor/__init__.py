"""The data doctor: reads every pair of a segmentation data set, says what is wrong with it and what would mend it."""
