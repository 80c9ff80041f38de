"""CrowdLearning (Wang et al., IEEE TMC 2024): the split of work with the best estimate.

Layout:
    policy.py      the policy: searches the splits
    offload.py     who trains which samples (the paper's first module)
    reallocate.py  who merges what, and in what form (its second module)
    sync.py        how often trainers merge, and what is done with the merged delta
    explain.py     a plan in one sentence
"""
