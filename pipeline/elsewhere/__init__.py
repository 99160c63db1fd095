"""A bundle judged on another machine than the one that made it: from the bundle alone, without torch.

measure    the bundle's models and the teacher's, measured here
bundle     `compress verify BUNDLE`: measured, judged, reported
result     the file with what a machine measured, and those that a run was given
merge      what other machines measured, in the report of the run
"""
