"""Profiles, plans and what they cost: pure, in integers alone, so that every device computes the same.

Layout:
    profile.py        what one device can do and holds
    plan.py           who trains which samples, who merges what, in what form deltas travel
    policy.py         from profiles to a plan: who is fit, and the port that a policy fills
    encoding_size.py  the encodings of deltas, and the bytes that each takes
    estimate.py       what a plan costs: memory, time, bytes
    convergence.py    how many epochs a cluster needs
    check.py          whether a plan may be carried out
    phase.py          whether a run trains, closes or is over, by the counts of its state
    round_plan.py     what may differ from round to round
    round_report.py   what earlier rounds have shown, and the quotas that follow
    canonical.py      the bytes that a digest is of
"""
