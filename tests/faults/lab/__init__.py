"""The fault lab: real nodes, a real backplane, clients of strangers, faults by a seeded schedule, and a checker apart."""
