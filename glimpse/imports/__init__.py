"""Images on their way in after the caller has gone: tasks, and the engine that works on them."""
