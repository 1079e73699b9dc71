"""Processes to kill: forks, whose time goes into work and not into imports."""

import multiprocessing
import os
import threading

from tqdm import tqdm


def start_fork(function, *args):
    """Start a process with the imports of this one."""

    def alone():
        # The lock of the bars is shared; one that is killed while it holds it would never give it back.
        tqdm.set_lock(threading.RLock())
        function(*args)

    process = multiprocessing.get_context("fork").Process(target=alone)
    process.start()
    return process


def train(recipe, work_dir, options):
    """Train, or go on, by one thread: a fork has none of the others, and would wait for them."""
    import torch  # (jobs that are no trainings do without)

    from beyonddrive.engine.runner import build_train_runner, load_config

    torch.set_num_threads(1)
    build_train_runner(load_config(recipe, options), str(work_dir), resume=True).train()


def serve_trainings(connection):
    """Train for whoever asks, until None is asked for; answer with the exit code.

    Asked for are the arguments of :func:`train` with the seconds after which a fork is to be killed; without
    these (None) the training is done here, so that forks inherit compiled kernels.
    """
    while (asked := connection.recv()) is not None:
        job, moment = asked
        if moment is None:
            train(*job)
            connection.send(0)
            continue
        process = start_fork(train, *job)
        process.join(moment)
        if process.exitcode is None:
            process.kill()
            process.join()
        connection.send(process.exitcode)
    os._exit(0)  # (taking down all modules in order takes as long as a training)
