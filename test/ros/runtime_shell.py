"""What OpenVINO and onnxruntime look like to our engines, around a ``compute`` of the test's own."""

SHELL = """
class Core:
    def get_property(self, *_): return ["FP32"]
    def read_model(self, graph): return graph
    def compile_model(self, *_): return self
    def create_infer_request(self): return self
    def infer(self, inputs, share_inputs): self.results = dict(zip(("labels", "confidence"), compute(inputs["volume"])))
    def get_tensor(self, name): return Tensor(self.results[name])

class Tensor:
    def __init__(self, data): self.data = data

def get_available_providers(): return ["CPUExecutionProvider"]

class SessionOptions: pass

class InferenceSession:
    def __init__(self, *_, **__): pass
    def run(self, names, inputs): return compute(inputs["volume"])
"""
