"""FlowKit: mongo."""
