"""What can go wrong between asking for a prediction and its proposal."""

from annotomy.errors import Problem


class UnknownModel(Problem):
    """No model of this name and version is installed; `known_models` lists what is, as does GET /api/v1/models."""

    slug = "unknown-model"
    title = "There is no such model"
    status = 404


class ModelRefused(Problem):
    """The series is nothing that the model was made for; `reason` is the model's own stable slug.

    Its card says what it takes (GET /api/v1/models). Choose another series or another model; asking again changes nothing.
    """

    slug = "model-refused"
    title = "The model refuses this series"
    status = 422


class ModelCrashed(Problem):
    """The model's process died, for instance of a fault in native code or because the machine ran out of memory.

    Only this prediction is lost. Ask again once; if it dies again, tell who runs the server: the log names the job.
    """

    slug = "model-crashed"
    title = "The model crashed"
    status = 500


class ModelOutOfMemory(Problem):
    """The model wanted more than ANNOTOMY_MODEL_MEMORY_BYTES. Use a smaller series, or raise the limit."""

    slug = "model-out-of-memory"
    title = "The model ran out of memory"
    status = 500


class ModelTimedOut(Problem):
    """The model took longer than ANNOTOMY_MODEL_TIMEOUT_S and was stopped. Use a smaller series, or raise the limit."""

    slug = "model-timed-out"
    title = "The model took too long"
    status = 500


class ModelFailed(Problem):
    """The model raised an error or answered something that is no mask of the series. The server's log says where."""

    slug = "model-failed"
    title = "The model failed"
    status = 500
