"""The actor that trains and merges, and what it is made of.

Layout:
    trainer.py          the actor: hears what there is to do, and lets the parts do it
    training.py         the parts at work together: what concerns several of them
    outside.py          what the parts share of what is around the trainer
    beside.py           how a part has something run beside the trainer
    samples_on_loan.py  the samples that this device borrows, and those that it lends
    lending.py          what a lender may send to a borrower, and in which pieces; pure
    whole_states.py     the states that this device holds, gives and fetches
    wanted.py           a state that this device lacks, and whom it asks for it; pure
    local_steps.py      the round being trained
    learner.py          what it is trained with: network, optimiser, and what is left of earlier deltas
    local_round.py      the local steps of one round
    gossip.py           exchanges of parameters between neighbours within a round
    appraisal.py        evaluations by members that train nothing, beside the rounds
    unused_speed.py     the speed of a device that has no part in the training
    merging.py          the round being merged: an owner's side
    published_slice.py  one slice of an owner: merged, encoded, and what that lost
    completion.py       the end of a round: the state that it leads to
    checkpoints.py      the checkpoints in the device's store, and when the next is due
    checkpoint.py       one of them, as a file
    fates.py            what became of a device's contributions; pure
    rounds.py           the round being merged: when an owner merges, when a round can be completed; pure
    schedules/          how local steps and rounds go together, one for each manner of training; pure
    course.py           the generation and the round at which this device stands; pure
    own_slices.py       what has come for the slices that this device owns; pure
    merged_parts.py     the merged slices that have come; pure
    patience.py         when what a round lacks is late; pure
    effects.py          what the bookkeeping of rounds wants done; pure
    deadlines.py        how long an owner of a slice waits for contributions
    evaluations.py      what the owner of slice 0 hears of evaluations, where there is no common set; pure
    attendance.py       which trainers the rounds go on without
    turnout.py          whose samples the rounds of a run went on without; pure
    backlog.py          what the trainer is told while its local steps stand still
    report.py           what a device tells of its run
    observations.py     what the trainer tells the node's observers
    metrics.py          what a device can say of its run
"""
