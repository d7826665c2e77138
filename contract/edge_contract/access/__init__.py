"""Who may do what at a broker: rights, passwords, accounts, enrolment. Pure.

Guards: one table says which topics a role reads and writes; the files of every broker, the
enrolment of a device and the tests are made from it.
"""
