"""The same work in other libraries; each module is run by an interpreter that has its library."""
