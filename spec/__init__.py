"""What must be true: the plans as data, the contract, and the checks that prove their lines."""
