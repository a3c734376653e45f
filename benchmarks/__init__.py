"""Speed on this machine, each figure beside a named alternative that is timed in the same run.

`mbt-lite bench` and `make bench` run them. run.py goes through the cases of parts.py and model.py,
which timing.py times in turns; others.py is a program that uses other libraries. reference.py is
the usual formulation of the model. growth.py, throughput.py (loading) and train_step.py measure
more; front_end_recovery.py and self_test_recovery.py prove that a hidden front end is found by what
a model trained through it answers.
"""
