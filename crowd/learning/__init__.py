"""Torch arithmetic without I/O: from a task and its samples to a state that all devices hold bitwise alike.

Layout:
    task.py          the work, as its user describes it
    warm_start.py    parameters, trained elsewhere, that a run begins with
    work.py          a task made ready on this device; local steps
    trial.py         whether network, loss, optimiser and data fit together
    flops.py         how much arithmetic it is to train a network
    module_facts.py  what each module of a network takes
    description.py   a network or a loss in plain values, to compare
    fingerprint.py   whether two devices can train together
    speed_test.py    how fast this device trains the very task
    samples.py       a data set in memory
    own_data.py      a device's own data, which may be others from one plan to the next
    rereading.py     its data read once more, while a node runs
    keys.py          what a sample is known by
    holdout.py       what is kept from training, to evaluate states on it
    shards.py        samples by name: what is assigned to a trainer, and its own
    lent_samples.py  the samples that it has borrowed
    placement.py     where a network trains, and what crosses to it and back
    pool.py          what one generation trains, and in which order
    augment.py       a batch as it is trained
    schedule.py      the learning rate in the course of a run
    importance.py    samples drawn by their loss
    layout.py        where the tensors are in the state vector, and what they are
    replica.py       the replicated state, and how a merged delta changes it
    program.py       a trained network as a program that runs without the code that defines it
    state_file.py    a whole state as a file, as it travels
    encoding.py      how a delta is written on the wire
    fate.py          what an owner did with a contribution
    feedback.py      what an encoding lost is added to the next delta
    merge.py         one slice at its owner: what came, and its mean
    outliers.py      contributions that are out of all proportion
    evaluation.py    the sums of a metric; without torch
    summed_states.py  a metric of torchmetrics as one of a task
    quality.py       how good a state is, by the task's metric
    ending.py        what becomes of a run after a round: the state that is kept has been evaluated
"""
