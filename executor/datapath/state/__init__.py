"""The frozen vocabulary that the stages exchange: desired state, node facts, kernel state."""
