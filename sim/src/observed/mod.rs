//! Checks over traces of kind `observed` that need only the interface's contract.
