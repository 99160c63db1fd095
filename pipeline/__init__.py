"""The spine: config and recipes, the plan, the runner, the reports and the command line."""
