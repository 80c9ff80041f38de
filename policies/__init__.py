"""Policies: pure functions from the members' profiles to a plan.

Layout:
    crowd_learning/  the policy of this project
    baselines/       the methods that it is compared with
    common.py        what policies have in common
    labels.py        which labels each borrower trains, and from whom they come
    py.typed         says to type checkers that the annotations count
"""
