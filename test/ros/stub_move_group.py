"""A planning scene in a process of its own, as MoveIt keeps it: run with ROS arguments, it tells what it is asked.

Each request is one line of JSON on stdout. `/stub/behave` (String): ok, refuse, silent, or "drop NAME".
"""

import json
import sys
import time

import rclpy
from moveit_msgs.msg import CollisionObject
from moveit_msgs.srv import ApplyPlanningScene, GetPlanningScene
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Empty

OPERATIONS = {CollisionObject.ADD: "add", CollisionObject.MOVE: "move", CollisionObject.REMOVE: "remove"}


class Stub(Node):
    def __init__(self) -> None:
        super().__init__("move_group")
        self.objects: dict[str, CollisionObject] = {}
        self.behaviour = "ok"
        self.create_service(ApplyPlanningScene, "/apply_planning_scene", self.apply)
        self.create_service(GetPlanningScene, "/get_planning_scene", self.get)
        self.create_service(Empty, "/clear_octomap", self.clear)
        self.create_subscription(String, "/stub/behave", self.behave, 10)

    def apply(self, request, response):
        scene = request.scene
        results = [self.process(o) for o in scene.world.collision_objects] if self.behaviour == "ok" else [False]
        response.success = all(results)  # like MoveIt, which goes on after what it refuses
        colours = {c.id: (c.color.r, c.color.g, c.color.b, c.color.a) for c in scene.object_colors}
        tell(
            behaviour=self.behaviour,
            success=response.success,
            is_diff=scene.is_diff and scene.robot_state.is_diff,
            objects=[described(o, colours.get(o.id)) for o in scene.world.collision_objects],
        )
        if self.behaviour == "silent":
            time.sleep(3.0)
        return response

    def process(self, message) -> bool:
        shapes = len(message.meshes) + len(message.primitives)
        if message.operation == CollisionObject.ADD:
            if shapes:
                self.objects[message.id] = message
            return bool(shapes)
        if message.operation == CollisionObject.MOVE:
            return message.id in self.objects and not shapes
        return self.objects.pop(message.id, None) is not None

    def get(self, request, response):
        response.scene.world.collision_objects = [CollisionObject(id=name) for name in self.objects]
        return response

    def clear(self, request, response):
        tell(octomap="cleared")
        return response

    def behave(self, message) -> None:
        what, _, name = message.data.partition(" ")
        if what == "drop":
            self.objects.pop(name, None)
        else:
            self.behaviour = what
        tell(now=message.data)


def described(message, colour) -> dict:
    place = message.pose.position
    return {
        "operation": OPERATIONS[message.operation],
        "id": message.id,
        "frame_id": message.header.frame_id,
        "place_m": [place.x, place.y, place.z],
        "vertices_m": [[v.x, v.y, v.z] for mesh in message.meshes for v in mesh.vertices],
        "faces": [[int(i) for i in t.vertex_indices] for mesh in message.meshes for t in mesh.triangles],
        "shapes": len(message.meshes) + len(message.primitives),
        "subframes_m": {
            name: [pose.position.x, pose.position.y, pose.position.z]
            for name, pose in zip(message.subframe_names, message.subframe_poses, strict=True)
        },
        "colour": colour,
    }


def tell(**what) -> None:
    print(json.dumps({"at_s": time.monotonic(), **what}), flush=True)


if __name__ == "__main__":
    rclpy.init()
    stub = Stub()
    tell(now="ready")
    executor = MultiThreadedExecutor(1)
    executor.add_node(stub)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        sys.exit(0)
