"""FlowKit: kafka."""
