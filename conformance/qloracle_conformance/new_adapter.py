"""Writing the first version of somebody's adapter: it runs at once, and claims nothing until told."""

import ast
import inspect
from pathlib import Path
from textwrap import dedent, indent

from qloracle.errors import require_one_of
from qloracle_conformance.files import FileError, write_atomically
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.protocols import PROTOCOLS
from qloracle_conformance.registry import OPERATIONS

_IMPORTS = {
    "numpy": """import numpy as np
from qloracle_conformance import Backend, Claim
""",
    "torch": """from functools import partial

import torch
from qloracle_conformance import Backend, Claim
from qloracle_conformance.adapters.torch_arrays import fetch, placed
""",
}

_ARRAYS = {
    "numpy": '''VERSION = np.__version__


def place(buffer, dtype, shape, strides, offset):
    """Make an array of yours from storage items on the host; strides and offset count items."""
    width = buffer.dtype.itemsize
    return np.lib.stride_tricks.as_strided(buffer[offset:], shape, [s * width for s in strides])


def fetch(array):
    """Return the items of an array of yours as a NumPy array, and the name of its type."""
    return array, array.dtype.name
''',
    "torch": """VERSION = torch.__version__
place = partial(placed, device="cpu")  # or "cuda", "xpu", "mps": makes tensors there, with any strides and offset
""",
}

_HEAD = '''"""An adapter: it tells the conformance suite how to call your kernels, and what they claim.

    qloracle check --backend {module}:backend

Fill in one function after another, take its claim out of the comment, and run again. Nothing that is not claimed is
generated; what is not claimed is never a pass. `qloracle explain OPERATION` prints the rule that a claim is judged by.
Levels: "exact", every bit; "tie", codes may cross a boundary that is nearer than three float32 roundings; "bound",
inside the error bound of the declared roundings.
"""

{imports}
{arrays}
OPS = {{}}  # function name -> your function
CLAIMS = []
'''

_TAIL = """
# What the report records about the device: driver, compiler flags, instruction set, whether subnormals are flushed.
ENVIRONMENT = {}

backend = Backend("{name}", VERSION, place, fetch, OPS, tuple(CLAIMS), ENVIRONMENT)
"""


def new_adapter(path: Path, arrays: str, *, overwrite: bool = False) -> None:
    """Write a template.

    Parameters
    ----------
    path : Path
        A Python file; its stem is the module's name.
    arrays : {"numpy", "torch"}
        The kind of arrays that your functions take.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    ArgumentValueError
        If the kind of arrays is unknown.
    FileError
        If the file exists, is no module's, or cannot be written.
    """
    require_one_of("arrays", arrays, _ARRAYS)
    if not path.stem.isidentifier() or path.suffix != ".py":
        raise FileError(f"{path} must be a Python file whose name is a module's, such as my_adapter.py")
    if path.exists() and not overwrite:
        raise FileError(f"{path} exists; --overwrite replaces it")
    write_atomically(path, template(path.stem, arrays))


def template(module: str, arrays: str) -> str:
    """Return the text of an adapter whose every function and claim is a comment."""
    parts = [_HEAD.format(module=module, imports=_IMPORTS[arrays], arrays=_ARRAYS[arrays])]
    for function in PROTOCOLS:
        operations = [o for o in OPERATIONS.values() if o.function == function]
        if operations:
            parts.append(_function(function, operations))
    return "\n".join([*parts, _TAIL.replace("{name}", module)])


def _function(name: str, operations: list[Operation]) -> str:
    """Return one function as a comment: its signature, what it returns, and the claims that it serves."""
    protocol = PROTOCOLS[name]
    claims = indent("\n".join(_claim(operation) for operation in operations), "    ")
    code = f'{_stub(name, protocol)}\n\n\nOPS["{name}"] = {name}\nCLAIMS += [\n{claims}\n]\n'
    rule = (inspect.getdoc(protocol) or "").splitlines()[0].replace("``", "`")
    return f"\n# {rule}\n" + indent(code, "# ", lambda _: True).replace("# \n", "#\n")


def _stub(name: str, protocol: type) -> str:
    (definition,) = ast.parse(dedent(inspect.getsource(protocol.__call__))).body
    assert isinstance(definition, ast.FunctionDef)  # noqa: S101  # it is a method of a protocol
    arguments = definition.args
    arguments.args = arguments.args[1:]
    for argument in (*arguments.args, *arguments.kwonlyargs):
        argument.annotation = None
    definition.name, definition.returns = name, None
    definition.body = [definition.body[0], *ast.parse("raise NotImplementedError").body]
    return ast.unparse(definition)


def _claim(operation: Operation) -> str:
    levels = ", ".join(f'"{stage}": "{operation.strictest}"' for stage in operation.stages)
    options = f", options={dict(operation.options)!r}" if operation.options else ""
    return f'Claim("{operation.name}", {{{levels}}}{options}, source="why you believe it"),'
