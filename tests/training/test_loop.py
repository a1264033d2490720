"""The training loop: it learns, and a run that was broken off ends as if it had not been."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import make_trainer, toy_batches

from shortcut_policy.core.objectives.base import Batch, Loss, Networks, Phase, mean_square
from shortcut_policy.core.objectives.consistency_distillation import ConsistencyDistillation
from shortcut_policy.core.objectives.flow_matching import FlowMatching
from shortcut_policy.core.objectives.mean_flow import MeanFlow
from shortcut_policy.core.objectives.shortcut import Shortcut
from shortcut_policy.training.config import EmaConfig, TrainerConfig
from shortcut_policy.training.interruption import TrainingInterrupted
from shortcut_policy.training.loop import Hook, TrainingDiverged


def state(output, name="tensors.safetensors"):
    return load_file(Path(output) / "checkpoints" / "last" / "training_state" / name)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        assert torch.equal(one[key], two[key]), key


def metrics(output):
    return [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]


def test_parameters_move_and_the_loss_falls(tmp_path):
    trainer = make_trainer(tmp_path / "run", 300, log_every=50, dropout=0.0)
    before = {name: p.clone() for name, p in trainer.network.named_parameters()}
    trainer.run()
    assert all(not torch.equal(before[name], p) for name, p in trainer.network.named_parameters())
    lines = metrics(tmp_path / "run")
    assert lines[-1]["train/loss"] < 0.3 * lines[0]["train/loss"]
    assert lines[-1]["train/learning_rate"] < 1e-4
    assert {"train/flow_loss", "train/bootstrap_loss", "train/gradient_norm"} <= lines[0].keys()
    assert 0 <= lines[0]["train/data_wait_share"] <= 1
    assert json.loads((tmp_path / "run" / "finished.json").read_text())["steps"] == 300


class Prepared:
    """Batches that were there at once, and that it takes long to prepare."""

    waited_seconds = 0.0

    def __call__(self, step, rows):
        time.sleep(0.02)
        return toy_batches()(step, rows)


class Awaited(Prepared):
    def __call__(self, step, rows):
        self.waited_seconds += 0.02
        return super().__call__(step, rows)


def test_preparing_batches_is_not_waiting_for_data_where_the_source_can_tell(tmp_path):
    shares = {}
    for batches in (Prepared(), Awaited(), Prepared().__call__):
        make_trainer(tmp_path / str(len(shares)), 6, log_every=3, batches=batches, accumulation=2).run()
        shares[len(shares)] = [line["train/data_wait_share"] for line in metrics(tmp_path / str(len(shares)))]
    assert shares[0] == [0, 0]
    assert all(0 < share <= 1 for share in (*shares[1], *shares[2]))


@pytest.mark.parametrize("crash_at", [3, 5, 12])
def test_a_run_resumed_after_a_crash_equals_one_uninterrupted(tmp_path, crash_at):
    make_trainer(tmp_path / "whole").run()

    def crashing(step, rows):
        if step == crash_at:
            raise RuntimeError("power cut")
        return toy_batches()(step, rows)

    with pytest.raises(RuntimeError, match="power cut"):
        make_trainer(tmp_path / "broken", batches=crashing).run()
    progress = make_trainer(tmp_path / "broken").run()
    assert progress.step == 20
    assert progress.ema_updates == [20, 20]
    assert_same(state(tmp_path / "whole"), state(tmp_path / "broken"))
    whole, broken = ([line["train/loss"] for line in metrics(tmp_path / run)] for run in ("whole", "broken"))
    assert whole == broken, "the log is as if nothing had happened"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_run_goes_on(tmp_path, number):
    make_trainer(tmp_path / "whole").run()
    handler = signal.getsignal(number)

    def interrupted(step, rows):
        if step == 7:
            os.kill(os.getpid(), number)
        return toy_batches()(step, rows)

    with pytest.raises(TrainingInterrupted, match="after step 8") as caught:
        make_trainer(tmp_path / "broken", batches=interrupted).run()
    assert caught.value.signal_number == number
    assert signal.getsignal(number) == handler, "the caller's handler is back"
    make_trainer(tmp_path / "broken").run()
    assert_same(state(tmp_path / "whole"), state(tmp_path / "broken"))


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    def spoiled(step, rows):
        batch = toy_batches()(step, rows)
        return Batch(batch.data * float("nan"), batch.condition) if step == 7 else batch

    with pytest.raises(TrainingDiverged, match=r"step 7 .*checkpoints/last"):
        make_trainer(tmp_path / "run", batches=spoiled).run()
    assert (tmp_path / "run/checkpoints/last").resolve().name == "step_00000005"
    assert all(tensor.isfinite().all() for tensor in state(tmp_path / "run").values())


def test_micro_batches_add_up(tmp_path):
    make_trainer(tmp_path / "one", dropout=0.0).run()
    make_trainer(tmp_path / "four", dropout=0.0, accumulation=4).run()
    one, four = state(tmp_path / "one"), state(tmp_path / "four")
    for key in one:
        torch.testing.assert_close(one[key], four[key], rtol=1e-4, atol=1e-5)
    assert metrics(tmp_path / "four")[0]["train/loss"] == pytest.approx(metrics(tmp_path / "one")[0]["train/loss"])


def test_two_processes_equal_one(tmp_path):
    toy = str(Path(__file__).with_name("toy.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, toy, tmp_path / "one", "20"], check=True, env=environment)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, toy, tmp_path / "two", "20"], check=True, env=environment, capture_output=True)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)
    for key in ("train/loss", "train/flow_loss", "train/bootstrap_loss", "train/gradient_norm"):
        assert metrics(tmp_path / "two")[0][key] == pytest.approx(metrics(tmp_path / "one")[0][key], rel=1e-4)


def test_one_batch_for_debugging(tmp_path):
    asked = []

    def batches(step, rows):
        asked.append(step)
        return toy_batches()(step, rows)

    make_trainer(tmp_path / "run", 6, batches=batches, overfit_one_batch=True).run()
    assert asked == [0] * 6


def test_hooks_see_the_evaluation_ema_and_the_best_checkpoint_is_kept(tmp_path):
    seen = {}

    def measure(step, network):
        seen[step] = next(network.parameters()).clone()
        return {"valid/error": abs(step - 8)}

    trainer = make_trainer(tmp_path / "run", hooks=[Hook(4, measure)], best_metric="valid/error", checkpoint_every=100)
    trainer.run()
    assert list(seen) == [4, 8, 12, 16, 20]
    assert torch.equal(seen[20], next(trainer.ema_network.parameters()))
    assert not torch.equal(seen[20], next(trainer.network.parameters()))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert (checkpoints / "best").resolve().name == "step_00000008"
    assert (checkpoints / "last").resolve().name == "step_00000020"
    assert [line["valid/error"] for line in metrics(tmp_path / "run") if "valid/error" in line] == [4, 0, 4, 8, 12]


def test_equal_averages_are_one_and_different_ones_are_two(tmp_path):
    make_trainer(tmp_path / "one", 5, ema=EmaConfig(0.9)).run()
    make_trainer(tmp_path / "two", 5, ema=EmaConfig(0.99)).run()
    assert not any(key.startswith("target_ema/") for key in state(tmp_path / "one"))
    assert any(key.startswith("target_ema/") for key in state(tmp_path / "two"))


class Watched(FlowMatching):
    """Flow matching that looks at the weights of student and target."""

    needs = frozenset({"target_ema"})

    def loss(self, nets: Networks, batch, draw):
        SEEN.append([next(bound._network.parameters()).detach().clone() for bound in (nets.student, nets.target)])
        return super().loss(nets, batch, draw)


SEEN = []


def test_the_target_is_the_average_with_its_own_decay(tmp_path):
    SEEN.clear()
    make_trainer(tmp_path / "run", 6, objective=Watched(), target_ema=EmaConfig(0.8, 0.0), ema=EmaConfig(0.99)).run()
    expected = SEEN[0][0]
    for student, target in SEEN[1:]:
        expected = 0.8 * expected + 0.2 * student
        torch.testing.assert_close(target, expected)
        assert not torch.equal(target, student)


@pytest.mark.parametrize("clip", [None, 1e-3, 1e3])
def test_the_step_is_that_of_a_clipped_gradient(tmp_path, clip):
    """Against torch's own clipping and the unfused AdamW in float64."""
    trainer = make_trainer(tmp_path / "run", 20, dropout=0.0, gradient_clip=clip, weight_decay=0.1)
    reference = copy.deepcopy(trainer.network).double()
    matrices = [p for p in reference.parameters() if p.ndim > 1]
    rest = [p for p in reference.parameters() if p.ndim <= 1]
    adamw = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}])
    for group in (*adamw.param_groups, *trainer._optimizer.param_groups):
        group.update(lr=1e-2, betas=(0.95, 0.999))
    for step, size in enumerate((1.0, 100.0, 10.0)):  # unequal: AdamW does not feel a common factor
        generator = torch.Generator().manual_seed(step)
        for parameter, copied in zip(trainer.network.parameters(), reference.parameters(), strict=True):
            parameter.grad = size * torch.randn(parameter.shape, generator=generator)
            copied.grad = parameter.grad.double()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(reference.parameters(), clip)
        norm = trainer.descend()
        adamw.step()
        assert norm > 1
    for parameter, copied in zip(trainer.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.double(), copied, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"compile": True}])
def test_precision_and_compilation_change_the_loss_by_rounding_alone(tmp_path, options):
    make_trainer(tmp_path / "plain", 5, dropout=0.0, objective=FlowMatching()).run()
    make_trainer(tmp_path / "other", 5, dropout=0.0, objective=FlowMatching(), **options).run()
    assert metrics(tmp_path / "other")[0]["train/loss"] == pytest.approx(
        metrics(tmp_path / "plain")[0]["train/loss"], rel=0.02 if options.get("precision") == "bf16" else 1e-4
    )
    assert state(tmp_path / "other").keys() == state(tmp_path / "plain").keys(), "resumable with and without"


@pytest.mark.parametrize(("precision", "is_exact"), [("tf32", False), ("fp32", True)])
def test_fp32_is_fp32_on_a_gpu_too(tmp_path, precision, is_exact):
    make_trainer(tmp_path / "run", 1, precision=precision)
    assert torch.backends.cudnn.allow_tf32 is not is_exact
    assert torch.get_float32_matmul_precision() == ("highest" if is_exact else "high")


def test_an_online_teacher_under_bf16_does_not_cut_the_gradient(tmp_path):
    objective = Shortcut(base_steps=8, bootstrap_teacher="online")
    trainer = make_trainer(tmp_path / "run", 1, objective=objective, precision="bf16", dropout=0.0)
    before = {name: p.clone() for name, p in trainer.network.named_parameters()}
    trainer.run()
    assert all(not torch.equal(before[name], p) for name, p in trainer.network.named_parameters())


class Distill(FlowMatching):
    """The student follows a frozen teacher, after a phase of flow matching: the shape of every two-phase method."""

    @property
    def needs(self):
        return frozenset({"teacher"})

    def phases(self, total_steps):
        first = total_steps // 2
        return Phase("flow", first, FlowMatching()), Phase("distill", total_steps - first, self, "ema", "initial")

    def loss(self, nets: Networks, batch, draw):
        with torch.no_grad():
            wanted = nets.teacher(draw.noise, draw.t, draw.d)
        return Loss(mean_square(nets.student(draw.noise, draw.t, draw.d) - wanted, None), {})


def test_a_two_phase_method_gets_its_teacher_and_a_fresh_student(tmp_path):
    def crashing(step, rows):
        if step == 17:
            raise RuntimeError("power cut")
        return toy_batches()(step, rows)

    make_trainer(tmp_path / "flow", 10, objective=FlowMatching()).run()
    make_trainer(tmp_path / "whole", 20, objective=Distill()).run()
    flow, whole = state(tmp_path / "flow"), state(tmp_path / "whole")
    # the first phase is a flow-matching run of 10 steps; its EMA is the teacher, unchanged to the end
    for key in whole:
        if key.startswith("teacher/"):
            assert torch.equal(whole[key], flow[key.replace("teacher/", "ema/")])
    with pytest.raises(RuntimeError, match="power cut"):
        make_trainer(tmp_path / "broken", 20, objective=Distill(), batches=crashing).run()
    make_trainer(tmp_path / "broken", 20, objective=Distill()).run()
    assert_same(whole, state(tmp_path / "broken"))
    progress = json.loads((tmp_path / "whole/checkpoints/last/training_state/progress.json").read_text())
    assert progress["ema_updates"] == [10], "the averages began afresh with the student"


def test_a_teacher_is_given_where_none_is_trained(tmp_path):
    objective = ConsistencyDistillation(base_steps=4, teacher_fraction=0.0)
    teacher = make_trainer(tmp_path / "flow", 10, objective=FlowMatching())
    teacher.run()
    make_trainer(tmp_path / "first", 1, objective=objective, teacher=teacher.ema_network, learning_rate=1e-12).run()
    flow, first = state(tmp_path / "flow"), state(tmp_path / "first")
    for key, value in first.items():
        part, _, name = key.partition("/")
        if part == "teacher":
            assert torch.equal(value, flow[f"ema/{name}"])
        elif part == "network":
            torch.testing.assert_close(value, flow[f"ema/{name}"], rtol=0, atol=1e-9, msg="the student begins as it")

    with pytest.raises(ValueError, match=r"needs a teacher and trains none: give one \(teacher=CHECKPOINT\)"):
        make_trainer(tmp_path / "none", 10, objective=objective)
    trains_one = ConsistencyDistillation(base_steps=4, teacher_fraction=0.5)
    with pytest.raises(ValueError, match=r"trains one: say objective\.teacher_fraction=0"):
        make_trainer(tmp_path / "two", 10, objective=trains_one, teacher=teacher.ema_network)
    with pytest.raises(ValueError, match="an objective that needs none"):
        make_trainer(tmp_path / "needless", 10, objective=FlowMatching(), teacher=teacher.ema_network)


def test_the_best_of_the_teachers_phase_is_not_the_students(tmp_path):
    objective = ConsistencyDistillation(base_steps=4, teacher_fraction=0.5)

    def measure(step, network):  # the teacher seems better than the student will be
        return {"error": {5: 1.0, 10: 0.5, 15: 3.0, 20: 2.0}[step]}

    options = {"hooks": [Hook(5, measure)], "best_metric": "error"}
    make_trainer(tmp_path / "run", 20, objective=objective, **options).run()
    assert (tmp_path / "run" / "checkpoints" / "best").resolve().name == "step_00000020"

    def crashing(step, rows):
        if step == 13:
            raise RuntimeError("power cut")
        return toy_batches()(step, rows)

    with pytest.raises(RuntimeError, match="power cut"):
        make_trainer(tmp_path / "broken", 20, objective=objective, batches=crashing, **options).run()
    make_trainer(tmp_path / "broken", 20, objective=objective, **options).run()
    assert_same(state(tmp_path / "run"), state(tmp_path / "broken"))
    assert (tmp_path / "broken" / "checkpoints" / "best").resolve().name == "step_00000020"


def test_forward_derivatives_of_a_compiled_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"say trainer\.compile=false"):
        make_trainer(tmp_path, 10, objective=MeanFlow(), compile=True)


@pytest.mark.parametrize(
    ("options", "quoted"),
    [({"steps": 0}, "0"), ({"steps": 1, "learning_rate": -1.0}, "-1.0"), ({"steps": 1, "accumulation": 3}, "64")],
)
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        TrainerConfig(**options)


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_other_loggers(tmp_path, logger, monkeypatch):
    pytest.importorskip(logger)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    make_trainer(tmp_path / "run", 5, logger=logger).run()
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    files = {"tensorboard": "tensorboard/events.*", "wandb": "wandb/offline-run-*/*.wandb"}
    assert len(list((tmp_path / "run").glob(files[logger]))) == 1
