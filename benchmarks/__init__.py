"""Speed on this machine, each figure beside a named alternative that is timed in the same run.

`mbt-lite bench` and `make bench` run them. run.py goes through the cases of parts.py and model.py,
which timing.py times in turns; others.py is a program that uses other libraries. reference.py is
the usual formulation of the model. growth.py, throughput.py (loading) and train_step.py measure
more; front_end_recovery.py proves that front-end matching finds what a model was trained with.
"""
