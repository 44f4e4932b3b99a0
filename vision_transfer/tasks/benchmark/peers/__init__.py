"""Workers of other libraries; each is run by an interpreter that has its library."""
