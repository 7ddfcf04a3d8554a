-- What became of a command. Leans on the primary key; its turn (an advisory lock) is held.
SELECT standing, number, answer FROM participant_command WHERE command_id = $1
