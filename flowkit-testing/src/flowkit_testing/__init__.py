"""FlowKit: testing."""
