int sublet_something_else = 1;
