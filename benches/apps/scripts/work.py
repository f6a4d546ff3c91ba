# Objects of a scripting language: dictionaries, strings, classes, JSON, regular expressions.
import json
import os
import random
import re
from collections import Counter, deque

scale = int(os.environ["BENCH_SCALE"])
rng = random.Random(20051020)
words = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 12))) for _ in range(3000)]


class Node:
    def __init__(self, key, payload):
        self.key, self.payload, self.left, self.right = key, payload, None, None


def insert(root, key, payload):
    while root.key != key:
        side = "left" if key < root.key else "right"
        child = getattr(root, side)
        if child is None:
            setattr(root, side, Node(key, payload))
            return
        root = child
    root.payload = payload


total = 0
for turn in range(max(1, scale // 20)):
    root = Node(0.5, "")
    for _ in range(4000):
        key = rng.random()
        insert(root, key, {"id": key, "text": words[int(key * 3000)] * 3})
    records = [
        {"id": i, "name": rng.choice(words), "tags": [rng.choice(words) for _ in range(i % 7)], "at": rng.random()}
        for i in range(5000)
    ]
    text = json.dumps(records)
    back = json.loads(text)
    counts = Counter(tag for record in back for tag in record["tags"])
    found = re.findall(r"\b[a-m]\w+z\b", text)
    joined = " ".join(sorted(word.upper() + str(i) for i, word in enumerate(words)))
    queue = deque(maxlen=500)
    for i in range(30000):
        queue.append(bytes(rng.randint(1, 900)))
    total += len(text) + len(found) + len(joined) + sum(map(len, queue)) + counts.most_common(1)[0][1]
print(total)
