"""Which model may be shipped: the gate's policy, its decision, and the ledger of candidates and approvals."""
