"""The fleet's store: ``base.Store`` is the port, ``sql.open_store`` opens one."""
