"""`compress compare RUN RUN...`: the deployed models of several runs side by side, and which are worth having."""
