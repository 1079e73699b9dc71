"""Copies and checks that do not wait for a GPU, on one that is late."""

import copy
import pickle

import pytest
import torch

from beyonddrive.structures.transfers import LateChecks, finish_checks, start_to_host, to_host


def failed(name):
    return lambda: ValueError(f"{name} has failed")


def test_checks_record_and_ask_but_do_not_wait(gpu):
    checks = LateChecks()
    for number in range(3):
        checks(gpu.put(torch.tensor(True)), failed(number))
    assert gpu.log == ["record 1", "query 1", "record 2", "query 1", "record 3", "query 1"]
    gpu.catch_up()
    del gpu.log[:]
    checks(gpu.put(torch.tensor(True)), failed("last"))
    assert gpu.log == [
        "record 4",
        "query 1",
        "query 2",
        "query 3",
        "query 4",
    ]  # in their order, as far as done


def test_an_error_is_raised_by_a_later_check_once_it_has_arrived(gpu):
    checks = LateChecks()
    checks(gpu.put(torch.tensor(True)), failed("first"))
    checks(gpu.put(torch.tensor(False)), failed("second"))
    checks(gpu.put(torch.tensor(True)), failed("third"))
    gpu.catch_up()
    with pytest.raises(ValueError, match="second has failed"):
        checks(gpu.put(torch.tensor(False)), failed("fourth"))
    assert gpu.waits() == []
    checks.finish()  # (what came after an error says nothing new)
    assert gpu.waits() == []


def test_the_oldest_answer_is_waited_for_if_too_many_are_open(gpu):
    checks = LateChecks(limit=2)
    checks(gpu.put(torch.tensor(False)), failed("first"))
    checks(gpu.put(torch.tensor(True)), failed("second"))
    assert gpu.waits() == []
    with pytest.raises(ValueError, match="first has failed"):
        checks(gpu.put(torch.tensor(True)), failed("third"))
    assert gpu.waits() == ["synchronize 1"]


def test_who_finishes_waits_for_all_parts(gpu):
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    module[0].checks, module[1].checks = LateChecks(), LateChecks()
    module[0].checks(gpu.put(torch.tensor(True)), failed("first"))
    module[1].checks(gpu.put(torch.tensor(False)), failed("second"))
    assert gpu.waits() == []
    with pytest.raises(ValueError, match="second has failed"):
        finish_checks(module)
    assert gpu.waits() == ["synchronize 1", "synchronize 2"]
    finish_checks(module)


def test_copies_of_checks_owe_nothing(gpu):
    checks = LateChecks(limit=3)
    checks(gpu.put(torch.tensor(False)), failed("first"))
    for other in (copy.deepcopy(checks), pickle.loads(pickle.dumps(checks))):
        other.finish()
        assert other.limit == 3
    with pytest.raises(ValueError, match="first has failed"):
        checks.finish()


def test_nothing_is_asked_while_a_step_is_recorded(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    checks = LateChecks()
    checks(gpu.put(torch.tensor(False)), failed("first"))
    checks.finish()
    assert gpu.log == []


def test_a_copy_is_waited_for_when_it_is_wanted(gpu):
    value = gpu.put(torch.tensor([1.0, 2.0]))
    wait = start_to_host(value)
    value.fill_(7.0)  # the next step reuses the memory
    assert gpu.log == ["record 1"]
    assert wait().tolist() == [1.0, 2.0]
    assert to_host(value).tolist() == [7.0, 7.0]
    assert gpu.log == ["record 1", "synchronize 1", "record 2", "synchronize 2"]
