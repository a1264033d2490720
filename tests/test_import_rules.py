"""Who may import whom: the layers of the design, read from the sources."""

import ast
import functools
import importlib.util
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import shortcut_policy

ROOT = Path(__file__).parents[1]
PACKAGES = ("shortcut_policy", "image_gen", "envs")

# Besides the standard library and its own files. The longest name that fits a module counts; `*` stands for anything.
# Nobody may import scripts; scripts may import everything.
MAY_IMPORT = {
    "shortcut_policy.__init__": "",
    "shortcut_policy.core": "torch einops",
    "shortcut_policy.nn": "torch einops torchvision timm shortcut_policy.core",
    "shortcut_policy.data": "numpy torch h5py zarr pyarrow tqdm",
    "shortcut_policy.data.streamed_windows": """numpy torch h5py
        shortcut_policy.data shortcut_policy.worker_processes""",
    "shortcut_policy.config": "",
    "shortcut_policy.pretrained": "torch safetensors",
    "shortcut_policy.training": """torch tqdm safetensors wandb
        shortcut_policy.core shortcut_policy.config shortcut_policy.pretrained""",
    "shortcut_policy.chunking": "torch gymnasium shortcut_policy.data",
    "shortcut_policy.vision_config": "shortcut_policy.config",
    "shortcut_policy.image_views": "torch shortcut_policy.vision_config",
    "shortcut_policy.policy_config": """shortcut_policy.config shortcut_policy.vision_config
        shortcut_policy.data.action_codec shortcut_policy.data.normalizer""",
    "shortcut_policy.action_prefix": "torch shortcut_policy.nn",
    "shortcut_policy.policy": """torch shortcut_policy.action_prefix
        shortcut_policy.core shortcut_policy.nn shortcut_policy.chunking shortcut_policy.pretrained
        shortcut_policy.config shortcut_policy.policy_config shortcut_policy.vision_config shortcut_policy.image_views
        shortcut_policy.realtime.compiled_policy
        shortcut_policy.data.batches shortcut_policy.data.episodes shortcut_policy.data.normalizer""",
    "shortcut_policy.frozen_features": """numpy torch tqdm
        shortcut_policy.data.episodes shortcut_policy.image_views shortcut_policy.policy""",
    "shortcut_policy.policy_batches": """torch
        shortcut_policy.core shortcut_policy.data.batches shortcut_policy.policy shortcut_policy.training.seeding""",
    "shortcut_policy.agent": "numpy torch shortcut_policy.chunking shortcut_policy.policy",
    "shortcut_policy.validation": "torch shortcut_policy.core shortcut_policy.data shortcut_policy.policy",
    "shortcut_policy.statistics": "numpy",
    "shortcut_policy.worker_processes": "",
    "shortcut_policy.rollout_workers": "numpy gymnasium cloudpickle shortcut_policy.worker_processes envs.hosting",
    "shortcut_policy.episode_results": "numpy shortcut_policy.statistics",
    "shortcut_policy.evaluation": """numpy gymnasium
        shortcut_policy.episode_results shortcut_policy.rollout_workers envs.hosting""",
    "shortcut_policy.realtime": """numpy torch
        shortcut_policy.core shortcut_policy.nn shortcut_policy.data shortcut_policy.chunking
        shortcut_policy.pretrained shortcut_policy.config shortcut_policy.policy_config shortcut_policy.policy
        shortcut_policy.action_prefix""",
    "shortcut_policy.realtime.wire": "numpy msgpack",
    "shortcut_policy.realtime.requests": "numpy",
    "shortcut_policy.realtime.request_batcher": "",
    "shortcut_policy.realtime.server_config": "",
    "shortcut_policy.realtime.server": """numpy websockets
        shortcut_policy.realtime shortcut_policy.policy""",
    "shortcut_policy.realtime.client": "websockets shortcut_policy.realtime.wire",
    "shortcut_policy.realtime.gym_robot": "numpy gymnasium envs.success",
    "shortcut_policy.realtime.export": "shortcut_policy.realtime.chunk_module",
    "shortcut_policy.realtime.export_onnx": """numpy torch onnx onnxscript onnxruntime
        shortcut_policy.realtime shortcut_policy.policy""",
    "shortcut_policy.realtime.sampling_process": """numpy cloudpickle
        shortcut_policy.worker_processes envs.worker_process""",
    "shortcut_policy.result_tables": "shortcut_policy.results",
    "shortcut_policy.recipe_table": """numpy shortcut_policy.core shortcut_policy.results
        shortcut_policy.result_tables shortcut_policy.statistics""",
    "shortcut_policy.latency_results": """shortcut_policy.config shortcut_policy.results
        shortcut_policy.result_tables""",
    "shortcut_policy.speed_results": "shortcut_policy.config",
    "shortcut_policy.loop_results": "shortcut_policy.config shortcut_policy.realtime.loop_report",
    "shortcut_policy.mixture_results": "shortcut_policy.config shortcut_policy.result_tables",
    "shortcut_policy.gaussian_mixture": "torch",
    "shortcut_policy.objective_cost": "torch shortcut_policy.core",
    "shortcut_policy.results": """numpy
        shortcut_policy.config shortcut_policy.episode_results shortcut_policy.statistics""",
    "shortcut_policy.provenance": "torch",
    "shortcut_policy.plots": """numpy matplotlib shortcut_policy.results shortcut_policy.result_tables
        shortcut_policy.mixture_results shortcut_policy.latency_results shortcut_policy.diversity""",
    "shortcut_policy.report": """jinja2
        shortcut_policy.diversity shortcut_policy.plots shortcut_policy.results shortcut_policy.result_tables""",
    "shortcut_policy.video": "numpy imageio imageio_ffmpeg",
    "shortcut_policy.trained_objective": "shortcut_policy.core shortcut_policy.config",
    "shortcut_policy.trained_networks": """torch shortcut_policy.config shortcut_policy.trained_objective
        shortcut_policy.policy_config shortcut_policy.pretrained shortcut_policy.policy""",
    "shortcut_policy.experiment*": "numpy torch gymnasium shortcut_policy envs",
    "shortcut_policy.robomimic_adapter": """numpy torch gymnasium robomimic
        shortcut_policy.agent shortcut_policy.policy shortcut_policy.experiment envs.success""",
    "shortcut_policy.robomimic_run": """shortcut_policy.config shortcut_policy.experiment_config
        shortcut_policy.results shortcut_policy.training.run_folder""",
    "shortcut_policy.replay_workers": "shortcut_policy.worker_processes envs.replay envs.replay_worker",
    "shortcut_policy.diversity": "numpy h5py scipy",
    "shortcut_policy.expert_results": """numpy h5py
        shortcut_policy.config shortcut_policy.diversity shortcut_policy.statistics""",
    "shortcut_policy.collection": """numpy
        shortcut_policy.data shortcut_policy.diversity shortcut_policy.worker_processes envs""",
    "shortcut_policy.conversion": "numpy shortcut_policy.data shortcut_policy.replay_workers envs",
    "shortcut_policy.trials": "torch envs",
    "shortcut_policy.diagnosis": "packaging shortcut_policy.trials envs",
    "image_gen": """numpy torch einops tqdm scipy torchvision PIL pyarrow sklearn torch_fidelity diffusers datasets
        shortcut_policy.core shortcut_policy.nn.embeddings shortcut_policy.nn.adaln_block
        shortcut_policy.data.epoch_order shortcut_policy.training
        shortcut_policy.pretrained shortcut_policy.config""",
    "image_gen.trained_generators": """torch image_gen shortcut_policy.config shortcut_policy.pretrained
        shortcut_policy.trained_objective""",
    "image_gen.training": """image_gen shortcut_policy.config shortcut_policy.training shortcut_policy.provenance""",
    "envs": "gymnasium numpy scipy h5py mujoco OpenGL gym_pusht robosuite",
}

# Heavy or optional: imported when they are used, and each in one file only.
LAZY = (
    "robosuite",
    "robomimic",
    "gym_pusht",
    "diffusers",
    "datasets",
    "torch_fidelity",
    "wandb",
    "matplotlib",
    "imageio",
    "jinja2",
    "onnx",
    "onnxscript",
    "onnxruntime",
)

# Classes of these derive from the heavy package's own; they are imported as it is: lazily.
ADAPTERS = ("shortcut_policy.robomimic_adapter",)


def modules():
    """name -> source of every module of the packages; a package's own file is its `__init__`."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text() for file in files}


def imports(source, package, known=frozenset()):
    """(module, at module level) of every import in a source, lazy ones included; `known`: names that are modules."""
    tree = ast.parse(source)
    lazy = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node not in lazy) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                found.add((name if name in known else base, node not in lazy))
    return found


def below(module, name):
    return fnmatchcase(module, name) or fnmatchcase(module, f"{name}.*")


def rule_of(module):
    return max((name for name in MAY_IMPORT if below(module, name)), key=len, default=None)


@functools.cache
def all_imports():
    """(module, what it imports, at module level) for all modules."""
    sources = modules()
    return [
        (module, imported, at_module_level)
        for module, source in sources.items()
        for imported, at_module_level in sorted(imports(source, module.rpartition(".")[0], sources.keys()))
    ]


def test_every_module_has_a_rule_and_every_rule_a_module():
    assert [module for module in modules() if rule_of(module) is None] == []
    assert MAY_IMPORT.keys() - {rule_of(module) for module in modules()} == set()


def test_modules_import_only_what_their_layer_may():
    forbidden = [
        f"{module} imports {imported}"
        for module, imported, _ in all_imports()
        if imported.partition(".")[0] not in sys.stdlib_module_names
        and not any(below(imported, name) for name in (rule_of(module), *MAY_IMPORT[rule_of(module)].split()))
    ]
    assert forbidden == []


@pytest.mark.parametrize("heavy", LAZY)
def test_heavy_packages_are_imported_lazily_in_one_file(heavy):
    users = [(module, eager) for module, imported, eager in all_imports() if below(imported, heavy)]
    assert [module for module, eager in users if eager and module not in ADAPTERS] == []
    assert len({module for module, _ in users}) <= 1


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_are_imported_lazily(adapter):
    assert [module for module, imported, eager in all_imports() if eager and below(imported, adapter)] == []


def test_imports_are_found_wherever_they_stand():
    source = """
import numpy.linalg, os
from pkg import part, name
from . import sibling
def lazily():
    from ..other.thing import x
    if True: import heavy as h
"""
    assert imports(source, "pkg.sub", {"pkg.part", "pkg.sub.sibling"}) == {
        ("numpy.linalg", True),
        ("os", True),
        ("pkg.part", True),
        ("pkg", True),
        ("pkg.sub.sibling", True),
        ("pkg.other.thing", False),
        ("heavy", False),
    }


def test_importing_the_packages_loads_nothing_heavy():
    """Worker processes import both: they must start quickly."""
    program = (
        "import sys, envs; assert 'shortcut_policy' not in sys.modules; import shortcut_policy;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"envs", "shortcut_policy"} <= set(run.stdout.split())
    assert {"torch", "zarr", *LAZY}.isdisjoint(run.stdout.split())


def test_public_names_are_found_when_they_are_asked_for():
    for name in shortcut_policy.__all__:
        assert getattr(shortcut_policy, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Polciy'"):
        _ = shortcut_policy.Polciy
