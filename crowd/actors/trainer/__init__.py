"""The actor that trains and merges, and what it is made of.

Layout:
    trainer.py       the actor: samples, local steps, merges, rounds, whole states, the end of a run
    schedules/       how local steps and rounds go together, one for each manner of training; pure
    rounds.py        the round being merged: when an owner merges, when a round can be completed; pure
    course.py        the generation and the round at which this device stands; pure
    own_slices.py    what has come for the slices that this device owns; pure
    merged_parts.py  the merged slices that have come; pure
    patience.py      when what a round lacks is late; pure
    effects.py       what the bookkeeping of rounds wants done; pure
    owner.py         merged slices, and what became of whose contribution
    deadlines.py     how long an owner of a slice waits for contributions
    attendance.py    which trainers the rounds go on without
    backlog.py       what the trainer is told while its local steps stand still
    local_round.py   the local steps of one round
    appraisal.py     evaluations by members that train nothing, beside the rounds
    evaluations.py   what the owner of slice 0 hears of evaluations, where there is no common set; pure
    gossip.py        exchanges of parameters between neighbours within a round
    lending.py       what a lender may send to a borrower, and in which pieces
    observations.py  what the trainer tells the node's observers
    metrics.py       what a device can say of its run
"""
