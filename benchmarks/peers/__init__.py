"""FlowKit beside other orchestrators and task queues: the same work on the same machine."""
