"""Export: the artifacts a user deploys."""
