// Package lab is the life of a lab: a set of clusters with a mesh, known by its name and kept in a folder under Home.
//
// Up makes a lab or finds it as it is, Open finds it, List and StatusOf say how labs are, Down removes one with everything
// that was made for it. A Checkpoint is what a scenario writes down before it changes the lab. What is done to the mesh of
// a lab stands in the packages above: engine runs a scenario, catalogue many, bench measures.
//
// A program that uses this package calls Supervise first in main or TestMain, because embedded nodes are this program
// started again.
package lab
