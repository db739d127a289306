"""What can go wrong in virtual Temporal itself; the simulated errors are failures in protobuf."""


class Unsupported(RuntimeError):
    """A workflow uses a part of Temporal that the simulator does not have; it is named."""


class NonDeterminism(RuntimeError):
    """Replaying a run gave other commands than the run itself; the message holds a diff."""


class WorkflowTaskFailed(RuntimeError):
    """Workflow code raised something that fails the task and not the workflow: a defect."""


class AlreadyStarted(Exception):
    """The workflow id is taken, or was used and must not be again."""


class QueryFailed(Exception):
    """A workflow did not answer a query; the message says why."""
