"""FlowPolicy: see README.md."""
