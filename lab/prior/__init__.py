"""The paper's claims about the action prior (arXiv:2606.26095), put to the test at the size of the tiny preset."""
