import xml.etree.ElementTree as ET

import pytest

from envs.recorded_model import updated_model

RECORDED = """
<mujoco>
  <asset>
    <mesh name="gripper0_finger" file="/home/them/robosuite/models/assets/grippers/meshes/panda/finger.stl"/>
    <mesh name="mount0_pedestal" file="/home/them/robosuite/models/assets/mounts/meshes/pedestal.stl"/>
    <texture name="plain" builtin="flat"/>
  </asset>
  <worldbody>
    <body name="robot0_link0">
      <body name="gripper0_right_gripper"><geom name="gripper0_hand" mesh="gripper0_finger" mass="7"/></body>
      <body name="mount0_base"/>
    </body>
  </worldbody>
  <actuator><general name="gripper0_motor" joint="robot0_joint1"/></actuator>
</mujoco>"""

CURRENT = """
<mujoco>
  <worldbody>
    <body name="target" mocap="true"><geom name="target_box" contype="1"/></body>
    <body name="robot0_link0">
      <site name="robot0_right_center"/>
      <geom name="robot0_link0_collision" type="sphere" contype="1" conaffinity="1"/>
      <body name="gripper0_right_right_gripper"><geom name="gripper0_right_hand" mass="9"/></body>
    </body>
  </worldbody>
</mujoco>"""


@pytest.fixture
def assets(tmp_path):
    for name in ("grippers/meshes/panda/finger.stl", "grippers/meshes/other/finger.stl", "bases/meshes/pedestal.stl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def update(xml, assets):
    return ET.fromstring(updated_model(xml, CURRENT, assets))


def test_names_become_those_of_1_5(assets):
    model = update(RECORDED, assets)
    assert [body.get("name") for body in model.iter("body")] == [
        "robot0_link0",
        "gripper0_right_right_gripper",
        "fixed_mount0_base",
        "target",
    ]
    geom = model.find(".//geom[@name='gripper0_right_hand']")
    assert (geom.get("mesh"), geom.get("mass")) == ("gripper0_right_finger", "7")  # the recorded one, not today's
    assert model.find(".//general").attrib == {"name": "gripper0_right_motor", "joint": "robot0_joint1"}


def test_files_are_found_where_they_lie_now(assets):
    files = {mesh.get("name"): mesh.get("file") for mesh in update(RECORDED, assets).iter("mesh")}
    assert files == {
        "gripper0_right_finger": str(assets / "grippers/meshes/panda/finger.stl"),
        "fixed_mount0_pedestal": str(assets / "bases/meshes/pedestal.stl"),
    }


def test_what_the_installed_version_looks_up_is_added_without_contacts(assets):
    model = update(RECORDED, assets)
    link = model.find(".//body[@name='robot0_link0']")
    assert link.find("site").get("name") == "robot0_right_center"
    added = link.find("geom[@name='robot0_link0_collision']")
    assert (added.get("contype"), added.get("conaffinity"), added.get("mass")) == ("0", "0", "0")
    assert model.find("worldbody/body[@name='target']/geom").get("contype") == "0"
    assert len(model.findall(".//geom[@name='target_box']")) == 1


def test_a_model_of_1_5_keeps_its_names(assets):
    recorded = RECORDED.replace(
        '<body name="robot0_link0">', '<body name="robot0_link0"><site name="robot0_right_center"/>'
    )
    assert update(recorded, assets).find(".//mesh").get("name") == "gripper0_finger"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("model_1.xml", "no XML"),
        ("<mujoco><asset/></mujoco>", "no <worldbody>"),
        (RECORDED.replace("pedestal.stl", "throne.stl"), "needs 'throne.stl'"),
    ],
)
def test_what_cannot_be_simulated_is_refused(assets, xml, message):
    with pytest.raises(ValueError, match=message):
        update(xml, assets)
