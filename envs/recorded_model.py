"""Models that robosuite embedded in recordings, brought up to the names and files of the installed version."""

import copy
import posixpath
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

__all__ = ["updated_model"]

# robosuite 1.5 names a gripper after its arm, and a mount after the kind of base.
_RENAMED = (
    (re.compile(r"^gripper(\d+)_(?!(?:right|left)_)"), r"gripper\1_right_"),
    (re.compile(r"^mount(\d+)_"), r"fixed_mount\1_"),
)
_RIGHT_GRIPPER = re.compile(r"^gripper(\d+)_right_gripper$")  # 1.4's name of a body, with no arm in it

_CENTRE = re.compile(r"^robot\d+_(right|left)_center$")  # a site that only models of 1.5 have


def updated_model(xml: str, current: str, assets: Path) -> str:
    """Make the installed robosuite simulate a recorded model.

    The recorded physics stays: masses, sizes, poses, actuators. Names become those of robosuite 1.5, files of meshes
    and textures those of the installation, and bodies, geoms and sites that the installed version looks up by name
    but the recording lacks are added from its own model; geoms without contacts, so that nothing moves differently.

    Args:
        xml: the recorded model, of robosuite 1.2 to 1.5.
        current: the installed version's own model of the same environment.
        assets: robosuite's folder of meshes and textures.

    Raises:
        ValueError: it is no MuJoCo model, or a file it needs is not installed.
    """
    try:
        model = ET.fromstring(xml)
        worldbody = _child(model, "worldbody")
    except ET.ParseError as error:
        raise ValueError(f"the embedded model is no XML ({error}): the recording cannot be replayed") from error
    own = ET.fromstring(current)
    if not any(_CENTRE.match(site.get("name", "")) for site in model.iter("site")):
        _rename(model)
    _relocate(model, assets)
    named = {(tag, element.get("name")) for tag in ("body", "geom", "site") for element in model.iter(tag)}
    bodies = {body.get("name"): body for body in model.iter("body")}
    for parent, element in _named_elements(_child(own, "worldbody")):
        if (element.tag, element.get("name")) in named:
            continue
        host = worldbody if parent is None else bodies.get(parent)
        if host is not None:  # else it came with its body
            host.append(_without_contacts(element))
    return ET.tostring(model, encoding="unicode")


def _child(model: ET.Element, tag: str) -> ET.Element:
    child = model.find(tag)
    if child is None:
        raise ValueError(f"the embedded model has no <{tag}>: the recording cannot be replayed")
    return child


def _rename(model: ET.Element) -> None:
    for element in model.iter():
        for key, value in element.attrib.items():
            if key != "file":
                element.set(key, " ".join(_new_name(word) for word in value.split(" ")))


def _new_name(name: str) -> str:
    if match := _RIGHT_GRIPPER.match(name):
        return f"gripper{match[1]}_right_right_gripper"
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _relocate(model: ET.Element, assets: Path) -> None:
    """Point every file at the installed one with the longest common end of its path."""
    installed: dict[str, list[tuple[str, ...]]] = {}
    for path in sorted(assets.rglob("*.*")):
        installed.setdefault(path.name, []).append(path.relative_to(assets).parts)
    for element in _child(model, "asset"):
        recorded = element.get("file")
        if recorded is None:
            continue
        parts = tuple(posixpath.normpath(recorded.replace("\\", "/")).split("/"))
        candidates = installed.get(parts[-1], [])
        if not candidates:
            raise ValueError(f"the embedded model needs {parts[-1]!r}, which the installed robosuite does not have")
        best = max(candidates, key=lambda candidate: _common_end(candidate, parts))
        element.set("file", str(assets.joinpath(*best)))


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def _named_elements(body: ET.Element, name: str | None = None) -> Iterator[tuple[str | None, ET.Element]]:
    """Yield (name of the parent body, element) of all named bodies, geoms and sites, parents first."""
    for child in body:
        if child.tag in ("body", "geom", "site") and child.get("name"):
            yield name, child
        if child.tag == "body":
            yield from _named_elements(child, child.get("name"))


def _without_contacts(element: ET.Element) -> ET.Element:
    added = copy.deepcopy(element)
    for geom in added.iter("geom"):
        geom.set("contype", "0")
        geom.set("conaffinity", "0")
        geom.set("mass", "0")
    return added
