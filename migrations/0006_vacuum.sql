-- Vacuum of the tables that every step writes never sleeps: at thousands of steps a second a sleeping one falls behind.
alter table tasker.tasks set (autovacuum_vacuum_cost_delay = 0);
alter table tasker.steps set (autovacuum_vacuum_cost_delay = 0);
alter table tasker.step_edges set (autovacuum_vacuum_cost_delay = 0);
alter table tasker.task_transitions set (autovacuum_vacuum_cost_delay = 0);
alter table tasker.step_transitions set (autovacuum_vacuum_cost_delay = 0);
