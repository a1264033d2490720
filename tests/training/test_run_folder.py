import shutil

import pytest

from shortcut_policy.training.run_folder import RunFolder


def write(folder):
    (folder / "weights").write_text("1")


def test_the_same_configuration_resumes_from_the_last_checkpoint(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.claim({"steps": 10}) is None
    assert folder.claim({"steps": 10}) is None
    saved = folder.save(5, write, is_best=False, keep=1)
    assert folder.claim({"steps": 10}) == saved.resolve()


def test_another_configuration_is_refused_and_the_difference_named(tmp_path):
    RunFolder(tmp_path).claim({"trainer": {"steps": 10, "seed": 0}})
    with pytest.raises(FileExistsError, match=r"trainer\.steps is 10 there and 20 here"):
        RunFolder(tmp_path).claim({"trainer": {"steps": 20, "seed": 0}})


def test_a_finished_run_and_foreign_files_are_refused(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.claim({})
    run.finish({"steps": 1})
    with pytest.raises(FileExistsError, match="finished"):
        run.claim({})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("")
    with pytest.raises(FileExistsError, match="no run of ours"):
        RunFolder(tmp_path / "photos").claim({})
    assert list((tmp_path / "photos").iterdir()) == [tmp_path / "photos" / "cat.png"]


def test_old_checkpoints_go_and_the_best_stays(tmp_path):
    run = RunFolder(tmp_path)
    run.claim({})
    for step in range(1, 6):
        run.save(step, write, is_best=step == 2, keep=2)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == [
        "best",
        "last",
        "step_00000002",
        "step_00000004",
        "step_00000005",
    ]
    assert (run.checkpoints / "best" / "weights").read_text() == "1"
    assert (run.checkpoints / "last").resolve().name == "step_00000005"


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path):
    run = RunFolder(tmp_path)
    run.claim({})

    def die(folder):
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.save(1, die, is_best=False, keep=1)
    assert run.claim({}) is None
    assert run.save(1, write, is_best=False, keep=1).joinpath("weights").read_text() == "1"


def test_a_newest_checkpoint_removed_by_hand_leaves_the_one_before(tmp_path):
    run = RunFolder(tmp_path)
    run.claim({})
    for step in (1, 2, 3):
        run.save(step, write, is_best=step == 1, keep=2)
    shutil.rmtree(run.checkpoints / "step_00000003")
    assert run.claim({}).name == "step_00000002"
    shutil.rmtree(run.checkpoints / "step_00000002")
    assert run.claim({}).name == "step_00000001"


def test_a_stale_later_checkpoint_does_not_push_out_the_new_one(tmp_path):
    run = RunFolder(tmp_path)
    run.claim({})
    run.save(9, write, is_best=True, keep=1)
    run.save(5, write, is_best=False, keep=1)
    assert (run.checkpoints / "last").resolve().name == "step_00000005"
    assert (run.checkpoints / "last" / "weights").exists()


def test_a_claim_that_was_cut_short_is_taken_up(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".run.json").write_text("{")
    assert RunFolder(tmp_path).claim({"steps": 1}) is None
    assert RunFolder(tmp_path).claim({"steps": 1}) is None


def test_a_value_that_did_not_exist_when_the_run_began_counts_as_null(tmp_path):
    assert RunFolder(tmp_path / "run").claim({"seed": 0}) is None
    assert RunFolder(tmp_path / "run").claim({"seed": 0, "teacher": None}) is None
    with pytest.raises(FileExistsError, match="teacher is None there and 'flow' here"):
        RunFolder(tmp_path / "run").claim({"seed": 0, "teacher": "flow"})
    (tmp_path / "run" / "finished.json").write_text("{}")
    with pytest.raises(FileExistsError, match="finished"):
        RunFolder(tmp_path / "run").claim({"seed": 0, "teacher": None})


def test_a_run_from_before_an_option_existed_resumes_where_that_is_off_and_only_there(tmp_path):
    RunFolder(tmp_path).claim({"policy": {"horizon": 16}})
    for off in (None, 0, False):
        assert RunFolder(tmp_path).claim({"policy": {"horizon": 16, "prefix_steps": off}}) is None
    with pytest.raises(FileExistsError, match=r"policy\.prefix_steps is None there and 4 here"):
        RunFolder(tmp_path).claim({"policy": {"horizon": 16, "prefix_steps": 4}})
