"""A page in the browser: label recordings, train, look at what is found, correct, export.

`tal-jax label` serves it for labelling alone. It needs the extra `studio`.
"""

from tal_jax.studio.project import Project, open_project
from tal_jax.studio.server import StudioServer, open_server, open_studio

__all__ = ["Project", "StudioServer", "open_project", "open_server", "open_studio"]
