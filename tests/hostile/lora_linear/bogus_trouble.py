# aim: A reply of its own whose trouble is of a kind that does not exist.
# ends: crash: malformed
import json, os, struct
tree = {"$": "dict", "v": [["id", 1], ["threads", 0], ["trouble", {"$": "dict", "v": [["kind", "bogus"], ["message", "hi"]]}]]}
head = json.dumps(tree).encode()
os.write(3, struct.pack("!II", len(head), 0) + head)
