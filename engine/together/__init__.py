"""Many small trainings side by side on one GPU: scenes in its memory, steps recorded once and replayed.

A step of a tiny planner is a thousand small kernels. Asked for one by one, a GPU waits for the host most of
the time; one process for each training does not help, since a GPU serves processes in turns. Here a step is
recorded as a CUDA graph, and the graphs of many trainings run at the same time on streams of their own.
Numbers, order of scenes and schedule are those of a training by mmengine's runner.
"""
