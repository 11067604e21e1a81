"""What things cost: measurements that no test repeats. Each module is a command; `windows.place`
says where its evidence lies, by machine."""
